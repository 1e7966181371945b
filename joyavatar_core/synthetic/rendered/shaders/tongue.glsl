// Wet, and dark at the back of the mouth.
void surface(inout Surface s) {
    vec3 t = texture(colours, uv).rgb;
    s.albedo = t * t * tint;
    s.specular = .2;
    s.roughness = .35;
    s.occlusion = smoothstep(-.15, .3, extra.z) * (.12 + .35 * jaw);
    s.scatter = .5;
}
