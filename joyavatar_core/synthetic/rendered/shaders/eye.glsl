// A ball with an iris where it looks, wet, and darker below the upper lid.
uniform vec3 eye_centre[2], gaze[2];

void surface(inout Surface s) {
    int k = rest.x > 0. ? 0 : 1;
    vec3 out_of = normalize(rest - eye_centre[k]), front = normalize(gaze[k]);
    vec3 right = normalize(cross(vec3(0., 1., 0.), front)), up = cross(front, right);
    vec3 q = vec3(dot(out_of, right), dot(out_of, up), dot(out_of, front));
    float radius = length(q.xy);
    vec2 where = clamp(vec2(.5) + q.xy * .5 * 1.03, .03, .97);
    vec3 c = q.z > 0. ? texture(colours, where).rgb : vec3(.75, .7, .68);
    float sclera = smoothstep(.45, .53, radius);
    s.albedo = mix(c * c * .62, mix(c * c, vec3(.52, .49, .47), .65), sclera);
    s.normal = turn * normalize(out_of + front * .25 * smoothstep(.5, .2, radius));
    s.specular = .9;
    s.roughness = .10;
    s.occlusion = mix(s.occlusion, 1., .5) * mix(.30, 1., smoothstep(.50, .12, out_of.y));
    s.occlusion *= mix(.6, 1., smoothstep(-.75, -.35, out_of.y));
    s.scatter = .25 * sclera;
}
