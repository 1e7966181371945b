// Shells of short hair: a strand ends where its own noise says so.
uniform float layers, strands, curl;
uniform float softness;  // of the strands' ends

void surface(inout Surface s) {
    float height = (floor(extra.z) + .5) / layers, coverage = fract(extra.z) / .98;
    vec4 fine = vec4(texture(noise, uv * strands).rgb, 1.), coarse = texture(noise, uv * strands * .45 + .31);
    float strand = mix(fine.r, .5 * fine.b + .6 * coarse.b, curl);
    float dither = fract(52.98 * fract(dot(gl_FragCoord.xy, vec2(.0671, .00584)))) - .5;
    float length_ = coverage * smoothstep(.25, .75, strand) + softness * dither;
    if (height > length_ || coverage < .06) discard;
    float light = mix(.35, 1.15, height) * (.55 + .9 * strand);
    s.albedo = hair_colour * light * mix(1.35, 1., curl);
    s.normal = normalize(s.normal + turn * (vec3(fine.r, coarse.b, fine.b) - .5) * mix(1.2, 2.2, curl));
    s.specular = .05;
    s.roughness = .55;
    s.occlusion = mix(s.occlusion, 1., .3) * mix(.5, 1., height);
}
