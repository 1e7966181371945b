void surface(inout Surface s) {
    vec3 t = texture(colours, uv).rgb, c = t * t;
    s.albedo = mix(c, vec3(dot(c, vec3(.3, .6, .1))), .4) * tint;
    s.specular = .02;
    s.roughness = .6;
}
