"""A decoder in a process of its own: latents go there, frames come back, and the sampling devices are free of it."""

from __future__ import annotations

import itertools
import weakref

import torch
from torch import Tensor

from ..vae import StreamingVAE, TinyDecoder
from ..vae.cache import VAECache
from .messages import Channel


class RemoteCache:
    """A decoder's cache in the decoding process; the same calls as VAECache's between blocks."""

    def __init__(self, number: int, decoder: RemoteDecoder) -> None:
        self.number, self._decoder = number, decoder

    def state_dict(self) -> dict[str, Tensor]:
        """As VAECache.state_dict; the tensors are brought from the decoding process."""
        return self._decoder.ask("state", cache=self.number)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """As VAECache.load_state_dict."""
        self._decoder.ask("load", state, cache=self.number)


class RemoteDecoder:
    """The leader's decoder. It stands for its StreamingVAE or TinyDecoder, `module`, wherever frames are decoded."""

    def __init__(self, module: StreamingVAE | TinyDecoder, there: Channel, back: Channel) -> None:
        self.module = module
        self.kind, self.dim = None, module.dim  # it takes no memory here
        self.at_once: int | None = None
        self._there, self._back = there, back
        self._numbers = itertools.count()
        self._caches: weakref.WeakValueDictionary[int, RemoteCache] = weakref.WeakValueDictionary()

    @property
    def compute_device(self) -> torch.device:
        """Where frames come to."""
        return self.module.compute_device

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.module.compute_dtype

    def new_cache(self) -> RemoteCache:
        """An empty cache: one per stream."""
        number = next(self._numbers)
        alive = list(self._caches)
        self._caches[number] = cache = RemoteCache(number, self)
        self.ask("new_cache", number=number, alive=alive)
        return cache

    def decode(self, latents: Tensor, cache: RemoteCache | None = None) -> Tensor:
        """As StreamingVAE.decode; the frames come to the device of the latents."""
        cache = self.new_cache() if cache is None else cache
        asked = {"cache": cache.number, "at_once": self.at_once}
        return self.ask("decode", {"latents": latents}, **asked)["frames"].to(latents.device)

    def ask(self, name: str, tensors: dict[str, Tensor] | None = None, **facts: object) -> dict[str, Tensor]:
        """Send a message and wait for the tensors of its answer."""
        tensors = tensors or {}
        with self._there.turn():
            self._there.send(name, list(tensors.values()), names=list(tensors), **facts)
            _, answer, values = self._back.receive()
        return dict(zip(answer["names"], values, strict=True))


class DecodingProcess:
    """The other side of a RemoteDecoder."""

    def __init__(self, decoder: StreamingVAE | TinyDecoder, there: Channel, back: Channel) -> None:
        self.decoder, self._there, self._back = decoder, there, back
        self.caches: dict[int, VAECache] = {}

    @torch.no_grad()
    def run(self) -> None:
        """Answer until the leader ends. Raises RuntimeError if it ends without a message."""
        answers = {"new_cache": self._new_cache, "decode": self._decode, "state": self._state, "load": self._load}
        while True:
            name, facts, values = self._there.receive()
            if name == "end":
                return
            tensors = dict(zip(facts.pop("names"), values, strict=True))
            answer = answers[name](tensors, **facts) or {}
            self._back.send(name, list(answer.values()), names=list(answer))

    def _new_cache(self, _: dict[str, Tensor], number: int, alive: list[int]) -> None:
        self.caches = {kept: self.caches[kept] for kept in alive}
        self.caches[number] = self.decoder.new_cache()

    def _decode(self, tensors: dict[str, Tensor], cache: int, at_once: int | None) -> dict[str, Tensor]:
        self.decoder.at_once = at_once
        latents = tensors["latents"].to(self.decoder.compute_device)
        return {"frames": self.decoder.decode(latents, self.caches[cache])}

    def _state(self, _: dict[str, Tensor], cache: int) -> dict[str, Tensor]:
        return self.caches[cache].state_dict()

    def _load(self, tensors: dict[str, Tensor], cache: int) -> None:
        device = self.decoder.compute_device
        self.caches[cache].load_state_dict({name: tensor.to(device) for name, tensor in tensors.items()})
