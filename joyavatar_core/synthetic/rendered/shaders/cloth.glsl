// The texture gives folds and seams; the person the colours, and a pattern over the front.
uniform vec3 second_colour;
uniform float own_colour;  // how much of the texture's own colours is kept
uniform int pattern;  // 0 none, 1 stripes across, 2 stripes down, 3 checks, 4 dots, 5 melange
uniform float pattern_size;

float woven() {
    vec2 p = rest.xy / pattern_size;
    vec2 wave = smoothstep(-.15, .15, sin(6.2832 * p));
    if (pattern == 1) return wave.y;
    if (pattern == 2) return wave.x;
    if (pattern == 3) return .5 * (wave.x + wave.y);
    if (pattern == 4) return smoothstep(.30, .26, length(fract(p + vec2(.5 * floor(mod(p.y, 2.)), 0.)) - .5));
    if (pattern == 5) return smoothstep(.3, .7, texture(noise, uv * 7.).r);
    return 0.;
}

void surface(inout Surface s) {
    vec3 t = texture(colours, uv).rgb, c = t * t;
    float folds = dot(c, vec3(.3, .6, .1)) / (brightness * brightness);
    vec3 dyed = mix(tint, second_colour, woven()) * clamp(mix(1., folds, .75), .1, 2.);
    float thread = texture(noise, uv * 23.).r;
    if (dot(s.normal, normalize(eye - position)) < 0.) s.normal = -s.normal;  // inside a collar
    s.albedo = mix(dyed, c, own_colour) * (.85 + .3 * thread);
    s.specular = .02;
    s.roughness = .6;
}
