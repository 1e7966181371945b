#version 330
// Turns the head about its pivot, and keeps what fragments want to know.
in vec3 in_position;
in vec3 in_normal;
in vec2 in_uv;
in vec3 in_extra;  // how much sky a vertex sees, how far it goes with the head, and what the material makes of the third

uniform mat4 camera, light;
uniform mat3 turn;
uniform vec3 pivot, shift, eye;
uniform float breath;
uniform float depth_offset;  // towards the camera, for what lies on the skin

out vec3 position, rest, normal, extra;
out vec2 uv;
out vec4 in_light;

void main() {
    float head = in_extra.y;
    vec3 turned = turn * (in_position - pivot) + pivot + shift;
    position = mix(in_position + vec3(0., breath, .4 * breath) * smoothstep(-1.2, -2.2, in_position.y), turned, head);
    rest = in_position;
    normal = normalize(mix(in_normal, turn * in_normal, head));
    uv = in_uv;
    extra = in_extra;
    in_light = light * vec4(position, 1.);
    gl_Position = camera * vec4(position, 1.);
    vec4 nearer = camera * vec4(position + normalize(eye - position) * depth_offset, 1.);
    gl_Position.z = nearer.z / nearer.w * gl_Position.w;
}
