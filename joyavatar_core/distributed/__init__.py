"""One stream in several processes: a leader, followers that share the model's passes, and optionally a decoder.

The leader (rank 0) samples, records and writes as a single process does. Its model is a `SharedTransformer`, which
sends every pass to the followers before it takes part itself. Its decoder may be a `RemoteDecoder`. Followers hold
weights, prompts and their share of the keys and values. They need no audio, noise, schedule or file of the stream.
"""
