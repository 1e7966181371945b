// Two skins blended, coloured by a tone; lips, blush, freckles, beard and the scalp under the hair.
uniform sampler2D colours2;
uniform vec3 mean, mean2;  // what the two textures have on cheeks and forehead, linear
uniform float blend;
uniform vec3 tone, lips;
uniform float contrast, beard, freckles, scalp;

void surface(inout Surface s) {
    vec4 mask = texture(masks, uv);  // lips, scalp, inside of the mouth, face
    vec3 fine = texture(noise, uv * 4.).rgb, coarse = texture(noise, uv * 1.3 + .37).rgb;
    vec3 first = texture(colours, uv).rgb, second = texture(colours2, uv).rgb;
    vec3 detail = mix(first * first / mean, second * second / mean2, blend);
    detail = max(mix(vec3(1.), detail, contrast), .02);
    float cheek = smoothstep(.35, .75, coarse.g) * mask.a;
    vec3 skin = tone * detail * (.92 + .16 * coarse) * (1. + vec3(.05, -.05, -.05) * cheek);
    vec3 lip_tone = mix(vec3(.9, .62, .6), vec3(1.), smoothstep(.1, .35, tone.g));
    skin *= mix(vec3(1.), exp(lips) * lip_tone, mask.r);
    if (freckles > 0.) {
        float spots = smoothstep(.62, .74, texture(noise, uv * 9.).b) * smoothstep(.35, .7, coarse.g);
        skin *= mix(vec3(1.), vec3(.85, .73, .62), spots * freckles * mask.a);
    }
    float bearded = clamp(extra.z * beard * 1.5 - .45 * (1. - beard), 0., 1.) * (1. - mask.r);
    skin = mix(skin, hair_colour * 1.3 + skin * .12, bearded * smoothstep(.15, .75, fine.r + bearded * .35 - .2));
    float covered = smoothstep(.45, .9, mask.g) * scalp;
    skin = mix(skin, hair_colour * (.25 + .5 * fine.r) + skin * .02, covered);
    float inside = smoothstep(.3, .7, mask.b);
    s.albedo = mix(skin, vec3(.1, .022, .02), inside * .9);
    s.scatter = 1. - covered;
    s.specular = ((.11 + .05 * mask.a) * (1. - .5 * mask.r) + mask.r * .10) * (.5 + fine.r);
    s.specular *= (1. - .9 * bearded) * (1. - .9 * covered);
    s.roughness = mix(.47, .36, mask.r);
    s.occlusion = mix(s.occlusion, s.occlusion * .35, inside);
}
