"""Probability models of latents, one a file. Each is written once: training asks it for bits, the codec has it code."""
