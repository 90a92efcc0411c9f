"""Pretrained networks: their records, weights, stages and cuts."""
