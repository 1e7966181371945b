// One colour, polished: the frames of glasses.
void surface(inout Surface s) {
    if (dot(s.normal, normalize(eye - position)) < 0.) s.normal = -s.normal;
    s.albedo = tint;
    s.specular = .6;
    s.roughness = .2;
    s.occlusion = 1.;
}
