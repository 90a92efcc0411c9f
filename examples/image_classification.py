"""What is in a picture, according to a network pretrained on ImageNet: the three likeliest of 1,000 classes.

python examples/image_classification.py cat.jpg [BACKBONE] [WEIGHTS]
"""

import sys

import headstart

picture, backbone, weights = (*sys.argv[1:], *(None, None, None))[:3]
model = headstart.load(backbone if backbone is not None else "mobilenetv2_100", weights=weights)
answer = model.predict(picture, top=3)
for rank, (label, probability) in enumerate(answer.top, 1):
    print(f"{rank}: {label} {probability:.2f}")
