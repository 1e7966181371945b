// Brows and lashes: hair painted on strips that lie on the skin.
void surface(inout Surface s) {
    s.albedo = hair_colour * tint;
    s.alpha = min(texture(colours, uv).a * 1.7, 1.) * .92;
    s.specular = 0.;
    s.occlusion = .9;
}
