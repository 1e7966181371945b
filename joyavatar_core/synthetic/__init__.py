"""Talking people made from seeds: pictures, voices and clips to train on."""
