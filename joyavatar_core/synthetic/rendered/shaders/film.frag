#version 330
// A camera's response: white balance, exposure, vignette, a filmic curve, saturation and grain.
in vec2 at;
uniform sampler2D picture;
uniform vec3 white_balance;
uniform float exposure, vignette, grain, seed, saturation, gamma, softness;
uniform vec2 pixel;
out vec4 colour;

float hash(vec2 p) {
    p = fract(p * vec2(123.34, 456.21) + seed);
    p += dot(p, p + 45.32);
    return fract(p.x * p.y);
}

// Narkowicz, "ACES filmic tone mapping curve" (2015).
vec3 filmic(vec3 x) {
    return clamp((x * (2.51 * x + .03)) / (x * (2.43 * x + .59) + .14), 0., 1.);
}

void main() {
    vec2 o = pixel * softness;
    vec3 c = texture(picture, at).rgb * 2.;
    c += texture(picture, at + vec2(o.x, 0.)).rgb + texture(picture, at - vec2(o.x, 0.)).rgb;
    c += texture(picture, at + vec2(0., o.y)).rgb + texture(picture, at - vec2(0., o.y)).rgb;
    vec2 d = at - .5;
    c = filmic(c / 6. * white_balance * exposure * (1. - 2. * vignette * dot(d, d)));
    c = pow(c, vec3(1. / gamma));
    float luminance = dot(c, vec3(.3, .59, .11));
    c = mix(vec3(luminance), c, saturation);
    vec3 noise = vec3(hash(at * 731.), hash(at * 733. + 1.7), hash(at * 739. + 3.1)) - .5;
    colour = vec4(c + noise * grain * (1.2 - luminance), 1.);
}
