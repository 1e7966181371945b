"""espeak-ng in a process of its own: one sentence in, samples and phoneme times out.

Run as a script by `voices.py`. The library's sound depends on all it has said before (noise, smoothing, prosody), so
only a fresh process gives the same samples every time. Needs nothing but the standard library, to start quickly.
"""

import array
import ctypes
import json
import sys

PHONEME, LIST_END = 7, 0  # espeak_EVENT_TYPE
SYNCHRONOUS, PHONEMES_IN_IPA, UTF8 = 2, 3, 1
RATE, PITCH, RANGE = 1, 3, 4  # espeak_PARAMETER


class EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", EventId),
    )


Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


def speak(text: str, voice: str, rate: int, pitch: int, pitch_range: int) -> tuple[dict, bytes]:
    """{"rate": samples a second, "phones": [[first sample, IPA], ...]} or {"error": ...}, and 16-bit samples."""
    try:
        library = ctypes.CDLL("libespeak-ng.so.1")
    except OSError:
        return {"error": "libespeak-ng.so.1 was not found; making data needs it: apt install espeak-ng"}, b""
    samples, phones = array.array("h"), []

    def receive(wave, count, events):
        if count > 0:
            samples.extend(wave[:count])
        k = 0
        while events[k].type != LIST_END:
            if events[k].type == PHONEME:
                phones.append([events[k].sample, events[k].id.string.decode("utf-8", "ignore")])
            k += 1
        return 0

    callback = Callback(receive)
    sample_rate = library.espeak_Initialize(SYNCHRONOUS, 0, None, PHONEMES_IN_IPA)
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.encode()):
        return {"error": f"espeak-ng has no voice {voice!r}; expected one of `espeak-ng --voices` with a variant"}, b""
    for parameter, value in ((RATE, rate), (PITCH, pitch), (RANGE, pitch_range)):
        library.espeak_SetParameter(parameter, value, 0)
    data = text.encode()
    library.espeak_Synth(data, len(data) + 1, 0, 1, 0, UTF8, None, None)
    return {"rate": sample_rate, "phones": phones}, samples.tobytes()


if __name__ == "__main__":
    head, body = speak(**json.load(sys.stdin))
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + body)
