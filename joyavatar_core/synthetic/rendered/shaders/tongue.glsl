void surface(inout Surface s) {
    vec3 t = texture(colours, uv).rgb;
    s.albedo = t * t * tint;
    s.specular = .35;
    s.roughness = .35;
    s.occlusion = smoothstep(-.15, .3, extra.z) * (.2 + .45 * jaw);
    s.scatter = .5;
}
