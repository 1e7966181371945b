"""An AvatarTransformer whose passes several processes share: the leader's side, and the followers' loop."""

from __future__ import annotations

import dataclasses
import itertools
import weakref

import torch
from torch import Tensor

from ..model.kv_cache import KVCache
from ..model.transformer import AvatarTransformer, SelfContext, TextContext
from .messages import Channel
from .shared_cache import REPEATED, SharedCache, gather_heads, put_layer, whole_state


class SharedTransformer:
    """The leader's model. It stands for its AvatarTransformer, `module`, wherever a stream is made of one."""

    def __init__(self, module: AvatarTransformer, channel: Channel) -> None:
        self.module = module
        self._channel = channel
        self._numbers = itertools.count()
        # What followers hold for the leader, by number; what the leader has dropped they drop at the next addition.
        self._texts: weakref.WeakValueDictionary[int, TextContext] = weakref.WeakValueDictionary()
        self._caches: weakref.WeakValueDictionary[int, SharedCache] = weakref.WeakValueDictionary()

    def __getattr__(self, name: str) -> object:
        if name == "module":
            raise AttributeError(name)
        return getattr(self.module, name)

    def new_cache(
        self, slots: int, tokens: int, dtype: torch.dtype, device: torch.device, batch: int = 1
    ) -> SharedCache:
        """As AvatarTransformer.new_cache, in every process."""
        number = next(self._numbers)
        with self._channel.turn():
            form = {"slots": slots, "tokens": tokens, "dtype": str(dtype).removeprefix("torch."), "batch": batch}
            self._channel.send("new_cache", number=number, alive=list(self._caches), **form)
            own = self.module.new_cache(slots, tokens, dtype, device, batch)
        self._caches[number] = cache = SharedCache(own, number, self.module.parallel, self._channel)
        return cache

    def encode_text(self, tokens: Tensor, padding: int = 0) -> TextContext:
        """As AvatarTransformer.encode_text, in every process."""
        number = next(self._numbers)
        with self._channel.turn():
            self._channel.send("encode_text", [tokens], number=number, alive=list(self._texts), padding=padding)
            text = self.module.encode_text(tokens, padding)
        self._texts[number] = text
        return text

    def __call__(
        self,
        latents: Tensor,
        labels: Tensor,
        text: TextContext,
        audio: list[Tensor] | None,
        context: SelfContext,
        cache_only: bool = False,
    ) -> Tensor | None:
        """As AvatarTransformer.forward, for a text and a cache of this model."""
        cache: SharedCache = context.cache
        tensors = [latents, labels, context.rope, *([torch.stack(audio)] if audio else [])]
        with self._channel.turn():
            self._channel.send(
                "forward", tensors, cache=cache.number, slot=context.slot, cache_only=cache_only,
                text=self._number_of(text),
            )  # fmt: skip
            own = dataclasses.replace(context, cache=cache.own)
            return self.module(latents, labels, text, audio, own, cache_only)

    def _number_of(self, text: TextContext) -> int:
        for number, known in self._texts.items():
            if known is text:
                return number
        raise KeyError("a text of another model")


class Follower:
    """Repeats in another process what the leader's SharedTransformer and SharedCache say, until the leader ends."""

    def __init__(self, model: AvatarTransformer, channel: Channel) -> None:
        self.model, self.channel = model, channel
        self.caches: dict[int, KVCache] = {}
        self.texts: dict[int, TextContext] = {}
        self._put: dict[int, Tensor] = {}  # cache -> the keys that were put last
        self._answers = {
            "new_cache": self._new_cache, "encode_text": self._encode_text, "forward": self._forward,
            "call": self._call, "keys_of": self._keys_of, "put_keys": self._put_keys, "state": self._state,
            "put_layer": self._put_layer,
        }  # fmt: skip

    @torch.no_grad()
    def run(self) -> None:
        """Raises RuntimeError if the leader ends without a message."""
        while True:
            name, facts, tensors = self.channel.receive()
            if name == "end":
                return
            self._answers[name](tensors, **facts)

    def _new_cache(
        self, _: list[Tensor], number: int, alive: list[int], slots: int, tokens: int, dtype: str, batch: int
    ) -> None:
        self.caches = {kept: self.caches[kept] for kept in alive}
        self._put = {kept: keys for kept, keys in self._put.items() if kept in alive}
        self.caches[number] = self.model.new_cache(slots, tokens, getattr(torch, dtype), self.channel.device, batch)

    def _encode_text(self, tensors: list[Tensor], number: int, alive: list[int], padding: int) -> None:
        self.texts = {kept: self.texts[kept] for kept in alive}
        self.texts[number] = self.model.encode_text(*tensors, padding)

    def _forward(self, tensors: list[Tensor], cache: int, slot: int, cache_only: bool, text: int) -> None:
        latents, labels, rope, *audio = tensors
        context = SelfContext(
            rope, self.caches[cache], slot, attention=self.model.attention, pointwise=self.model.pointwise
        )
        voice = list(audio[0].unbind()) if audio else None
        self.model(latents, labels, self.texts[text], voice, context, cache_only)

    def _call(self, _: list[Tensor], cache: int, name: str, arguments: list) -> None:
        if name not in REPEATED:
            raise ValueError(f"'{name}' is no call of a cache")
        getattr(self.caches[cache], name)(*arguments)

    def _keys_of(self, _: list[Tensor], cache: int, slot: int) -> None:
        gather_heads(self.caches[cache].keys_of(slot), self.model.parallel)

    def _put_keys(self, tensors: list[Tensor], cache: int, slot: int, position: int) -> None:
        if tensors:
            self._put[cache] = self.model.parallel.own_heads(tensors[0]).clone()
        self.caches[cache].put_keys(slot, self._put[cache], position)

    def _state(self, _: list[Tensor], cache: int) -> None:
        whole_state(self.caches[cache], self.model.parallel)

    def _put_layer(self, tensors: list[Tensor], cache: int, layer: int) -> None:
        put_layer(self.caches[cache], layer, tensors, self.model.parallel)
        if layer == 0:  # the frames come behind the last layer, with a commit
            self.caches[cache].frame_ids.clear()
            self.caches[cache].positions.clear()
