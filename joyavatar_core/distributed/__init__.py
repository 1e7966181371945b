"""One stream in several processes: a leader that has the whole pipeline, followers that share the model's passes, and
where it is wanted a process that decodes.

The leader (rank 0) samples, records and writes as a single process does. Its model is a `SharedTransformer`, which tells
the followers about every pass before it takes part itself, and its decoder may be a `RemoteDecoder`. Followers hold
weights, prompts and their share of the keys and values; they know nothing of audio, noise, schedules or files.
"""
