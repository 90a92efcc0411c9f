"""What a trained run says about a picture: index, name and probability of the likeliest class.

python examples/predict_image.py runs/a cat.jpg
"""

import sys

import headstart

run, picture = sys.argv[1:]
answer = headstart.load(run).predict(picture)
print(answer.index, answer.label, f"{answer.probability:.3f}")
