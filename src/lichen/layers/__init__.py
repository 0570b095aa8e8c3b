"""Building blocks of transforms: resampling, residual blocks, normalisations, bounds with useful gradients."""
