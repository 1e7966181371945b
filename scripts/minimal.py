"""The smallest program: a portrait and a voice in, a video file out.

python scripts/minimal.py portrait.png voice.wav video.mp4
"""

import sys

from joyavatar_core import FileAudio, StreamRun, VideoWriter, load_avatar, output_pixel_size, output_rate, preset, talk


def main(portrait: str, voice_file: str, video: str) -> None:
    avatar = load_avatar()  # the one that comes with the project
    voice = FileAudio(voice_file)
    stream = avatar.stream(portrait, voice, preset("joyavatar", avatar.config), seed=0)
    refine = avatar.refine(stream)  # brings the portrait's own detail back
    width, height = output_pixel_size(stream, refine)
    fps = output_rate(stream, refine).fps
    sound = (voice.sample_rate, voice.channels)
    with StreamRun(stream) as run, VideoWriter(video, width, height, fps, *sound) as writer:
        talk(run, avatar.decoder, writer, voice, refine=refine)  # one block is in memory at a time


if __name__ == "__main__":
    main(*sys.argv[1:4])
