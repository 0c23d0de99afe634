"""Evaluation of saved logits: metrics, intervals, priors, calibration, operating points, comparisons."""
