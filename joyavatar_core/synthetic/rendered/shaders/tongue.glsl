// Wet, and dark at the back of the mouth.
void surface(inout Surface s) {
    vec3 t = texture(colours, uv).rgb;
    float deep = smoothstep(-.15, .3, extra.z);
    s.albedo = t * t * tint * mix(.15, 1., deep);
    s.specular = .2;
    s.roughness = .35;
    s.occlusion = deep * (.12 + .35 * jaw);
    s.scatter = .5;
}
