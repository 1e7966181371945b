#version 330
in vec2 at;
uniform sampler2D picture;
uniform vec3 gain;
out vec4 colour;

void main() {
    colour = vec4(pow(texture(picture, at).rgb, vec3(2.2)) * gain, 1.);
}
