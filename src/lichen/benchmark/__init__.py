"""Codecs measured on real pictures through real bytes: rate, distortion, BD-rates, and published curves beside them.

datasets   pictures to measure on             codecs    encode to bytes, decode to pixels, one protocol
metrics    bits per pixel, PSNR, MS-SSIM      runner    measure all that is new
store      what was measured                  report    averages, tables
bd         BD-rate and BD-PSNR                published figures of publications, never mixed with measured ones
streams    estimated bits against the bytes of a file
"""
