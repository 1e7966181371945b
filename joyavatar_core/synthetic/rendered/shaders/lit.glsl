// Three lights and a sky on a surface: wrapped diffuse light, Blinn-Phong highlights, one shadow map.
uniform vec3 light_direction[3], light_colour[3], sky, ground;
out vec4 colour;

float shadowed(float bias) {
    vec3 s = in_light.xyz / in_light.w * .5 + .5;
    s.z -= bias;
    const float o = 1.3 / 384.;
    return .25 * (texture(shadow, s + vec3(-o, -o, 0.)) + texture(shadow, s + vec3(o, -o, 0.))
                  + texture(shadow, s + vec3(-o, o, 0.)) + texture(shadow, s + vec3(o, o, 0.)));
}

void main() {
    Surface s = Surface(vec3(.5), 1., normalize(normal), extra.x, .25, .42, 0., 0.);
    surface(s);
    float key = mix(shadowed(.0075), 1., s.unshadowed);
    vec3 view = normalize(eye - position);
    vec3 wrap = s.scatter * vec3(.30, .12, .06);
    vec3 bounced = mix(vec3(1.), vec3(1.06, .97, .94), s.scatter * (1. - s.occlusion));
    vec3 diffuse = mix(ground, sky, s.normal.y * .5 + .5) * s.occlusion * bounced;
    vec3 highlight = vec3(0.);
    float grazing = 1. - max(dot(s.normal, view), 0.);
    float fresnel = .04 + .96 * grazing * grazing * grazing * grazing * grazing;
    float exponent = 2. / pow(s.roughness, 4.) - 2.;
    for (int i = 0; i < 3; i++) {
        float facing = dot(s.normal, light_direction[i]);
        float reach = i == 0 ? key : mix(.35, 1., s.occlusion);
        vec3 edge = i == 0 ? reach + s.scatter * vec3(.9, .15, 0.) * reach * (1. - reach) : vec3(reach);
        diffuse += light_colour[i] * clamp((vec3(facing) + wrap) / (1. + wrap), 0., 1.) * edge;
        vec3 between = normalize(light_direction[i] + view);
        float lobe = exp2(exponent * 1.4427 * (dot(s.normal, between) - 1.)) * (exponent + 8.) * .04;
        highlight += light_colour[i] * max(facing, 0.) * reach * lobe;
    }
    highlight *= s.specular * (.35 + 2. * fresnel) * mix(s.occlusion, 1., .3);
    float mirrored = smoothstep(-.3, .5, reflect(-view, s.normal).y);
    highlight += mix(ground, sky, mirrored) * s.specular * fresnel * s.occlusion * 1.2;
    colour = vec4(s.albedo * diffuse + highlight, s.alpha);
}
