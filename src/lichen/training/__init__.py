"""Training: how weights come about.

config.py      what can be chosen, and files of it     loss.py         distortion against rate
data.py        pictures -> crops, ahead of the steps   schedule.py     progress, rate, randomness of a step
loop.py        the training itself                     state.py        what a checkpoint holds
processes.py   one process or many                     validation.py   held-out pictures
log.py         CSV, TensorBoard, the bar
"""
