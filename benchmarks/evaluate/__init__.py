"""Evaluation of finished models, without training: retrieval, zero-shot classification, probes, questions."""
