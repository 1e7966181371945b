// Strands: the texture gives their light and dark, the person the colour; thin parts are dithered away.
void surface(inout Surface s) {
    vec4 t = texture(colours, uv);
    float grain = texture(noise, uv * 9.).r;
    float strand = dot(t.rgb, vec3(.3, .6, .1)) / brightness;
    float shade = clamp(.12 + .88 * strand * strand, 0., 2.6) * (.55 + .9 * grain);
    float alpha = t.a * mix(1., smoothstep(.15, .6, grain + t.a * .5), .6);
    float dither = fract(52.98 * fract(dot(gl_FragCoord.xy, vec2(.0671, .00584))));
    if (alpha < .22 + .45 * dither) discard;
    if (dot(s.normal, normalize(eye - position)) < 0.) s.normal = -s.normal;
    s.albedo = hair_colour * shade;
    s.specular = .09 * clamp(strand * strand, .1, 2.);
    s.roughness = .5;
    s.occlusion *= s.occlusion;
}
