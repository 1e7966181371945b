#version 330
// Writes depth only; strands of hair are cut out where their texture is thin.
in vec2 uv;
uniform sampler2D colours;
uniform bool cut;

void main() {
    if (cut && texture(colours, uv).a < .4) discard;
}
