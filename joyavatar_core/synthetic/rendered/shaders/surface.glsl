#version 330
// What every material starts from; a material file follows and defines `void surface(inout Surface s)`.
in vec3 position, rest, normal, extra;
in vec2 uv;
in vec4 in_light;
uniform sampler2D colours, masks, noise;
uniform sampler2DShadow shadow;
uniform mat3 turn;
uniform vec3 eye;
uniform vec3 tint;  // the part's own colour, linear
uniform float brightness;  // mean luminance of the part's texture, as stored
uniform vec3 hair_colour;
uniform float jaw;  // how far the jaw is open, 0..1

struct Surface {
    vec3 albedo;
    float alpha;
    vec3 normal;
    float occlusion;  // 1: sees the whole sky
    float specular;
    float roughness;
    float scatter;  // of light below the surface: 1 for skin
    float unshadowed;  // how much of the first light's shadow is ignored
};
