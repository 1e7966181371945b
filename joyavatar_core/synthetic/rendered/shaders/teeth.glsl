// Enamel that gets darker towards the back of the mouth and as the jaw closes.
void surface(inout Surface s) {
    vec3 t = texture(colours, uv).rgb, c = t * t;
    s.albedo = mix(c, vec3(dot(c, vec3(.33))), .2) * tint;
    s.specular = .3;
    s.roughness = .3;
    s.occlusion = smoothstep(-.05, .36, extra.z) * (.45 + .5 * jaw);
    s.scatter = .6;
    s.unshadowed = .35;
}
