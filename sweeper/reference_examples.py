"""Examples for docs/recipe.md, by the heading they stand under; a test loads each as a part of a study.

What an example leaves out of `study`, `data` and `model` is a study of digits with a small convolutional network.
"""

from __future__ import annotations

REVIEWS = (
    'data: {{source: "csv:reviews.csv", target: stars, text: review, augment: [{}]}}\nmodel: {{build: text_gru}}\n'
)
HOUSES = 'data: {{source: "csv:houses.csv", target: price, task: regression}}\nmodel: {{build: mlp}}\n{}'

EXAMPLES: dict[str, str] = {
    "study.yaml": """\
study: digits
seed: 1
data: {source: digits, validation: 0.15}
model: {build: small_convnet, width: {choice: [16, 32]}}
train: {epochs: 12, optimizer: {name: adamw, lr: {log: [0.001, 0.03]}}}
search: {trials: 24}
workers: {concurrent: 2}
average: {best_n: 3}
""",
    "data": """\
data:
  source: "csv:houses.csv"
  task: regression
  target: price
  drop: [id]
  categorical: [postal_code]
  train_fraction: {choice: [0.1, 0.3, 1.0]}   # a learning curve
model: {build: mlp}
""",
    "data.augment": """\
data:
  source: digits
  augment: [random_crop, {name: rotation, degrees: {uniform: [0, 30]}}, {choice: [null, erasing]}]
""",
    "data.augment: random_crop": "data: {source: digits, augment: [{name: random_crop, padding: 1}]}\n",
    "data.augment: random_resized_crop": """\
data: {source: digits, augment: [{name: random_resized_crop, min_area: {uniform: [0.08, 0.5]}}]}
""",
    "data.augment: horizontal_flip": """\
data: {source: "folder:signs", augment: [{name: horizontal_flip, except_classes: [left, right]}]}
""",
    "data.augment: vertical_flip": "data: {source: digits, augment: [{name: vertical_flip, probability: 0.25}]}\n",
    "data.augment: rotation": "data: {source: digits, augment: [{name: rotation, degrees: {uniform: [0, 30]}}]}\n",
    "data.augment: affine": "data: {source: digits, augment: [{name: affine, translate: 0.05, shear: 5}]}\n",
    "data.augment: color_jitter": "data: {source: digits, augment: [{name: color_jitter, brightness: 0.4}]}\n",
    "data.augment: erasing": """\
data: {source: digits, augment: [random_crop, {name: erasing, probability: {choice: [0.0, 0.5]}}]}
""",
    "data.augment: rand_augment": """\
data: {source: digits, augment: [{name: rand_augment, operations: 2, magnitude: {int: [3, 15]}}]}
""",
    "data.augment: trivial_augment": "data: {source: digits, augment: [{choice: [null, trivial_augment]}]}\n",
    "data.augment: random_deletion": REVIEWS.format("{name: random_deletion, probability: {uniform: [0, 0.2]}}"),
    "data.augment: random_swap": REVIEWS.format("{name: random_swap, share: 0.1}"),
    "data.augment: random_insertion": REVIEWS.format("{name: random_insertion, table: synonyms.txt}"),
    "data.augment: synonym_replacement": REVIEWS.format("{name: synonym_replacement, probability: 0.2}"),
    "data.augment: back_translation": REVIEWS.format(
        "{name: back_translation, there: my_texts:to_german, back: my_texts:to_english}"
    ),
    "data.augment: custom": """\
data: {source: digits, augment: [{name: custom, function: my_task:add_noise, arguments: {std: {uniform: [0, 0.2]}}}]}
""",
    "model": "model: {choice: [{build: linear}, {build: mlp, depth: {int: [1, 3]}}, {build: small_convnet}]}\n",
    "model: linear": "model: {build: linear}\n",
    "model: mlp": "model: {build: mlp, width: {int: [32, 512], log: true}, depth: 2, norm: batch, dropout: 0.2}\n",
    "model: small_convnet": "model: {build: small_convnet, width: {choice: [16, 32]}, depth: 3, dropout: 0.1}\n",
    "model: small_resnet": "model: {build: small_resnet, blocks: {choice: [1, 3]}, norm: {choice: [batch, group]}}\n",
    "model: text_bag": REVIEWS.format("").replace("build: text_gru", "build: text_bag, width: {choice: [16, 64]}"),
    "model: text_gru": REVIEWS.format("").replace("build: text_gru", "build: text_gru, hidden: 128, dropout: 0.3"),
    "model: text_transformer": REVIEWS.format("").replace(
        "build: text_gru", "build: text_transformer, width: 64, heads: 4, depth: {int: [1, 4]}"
    ),
    "model: module:function": """\
model: {build: "torchvision.models:resnet18", arguments: {norm_layer: null}, init: kaiming_normal}
""",
    "model.pretrained": """\
model:
  build: torchvision.models:resnet18
  pretrained: {weights: DEFAULT, freeze: [body], unfreeze_after_epochs: 3, body_lr: {log: [0.01, 1]}}
""",
    "train": """\
train:
  epochs: 20
  batch_size: {choice: [64, 128, 256]}
  accumulate: 2
  optimizer: {name: sgd, lr: {log: [0.01, 1]}}
  schedule: {name: one_cycle}
  precision: bf16
  clip_norm: {choice: [null, 1.0]}
""",
    "train.loss": "train: {loss: {choice: [{name: cross_entropy}, {name: focal, gamma: {uniform: [0.5, 4]}}]}}\n",
    "train.loss: cross_entropy": "train: {loss: {name: cross_entropy, label_smoothing: {uniform: [0, 0.2]}}}\n",
    "train.loss: focal": "train: {loss: {name: focal, gamma: 2, class_weights: balanced}}\n",
    "train.loss: bce": "train: {loss: {name: bce, label_smoothing: 0.1}}\n",
    "train.loss: mse": HOUSES.format("train: {loss: {name: mse}}\n"),
    "train.loss: huber": HOUSES.format("train: {loss: {name: huber, delta: {log: [0.1, 2]}}}\n"),
    "train.optimizer": """\
train:
  optimizer:
    choice:
      - {name: sgd, lr: {log: [0.01, 1]}, momentum: {uniform: [0.8, 0.98]}}
      - {name: adamw, lr: {log: [1e-4, 1e-2]}, weight_decay: {log: [1e-4, 0.1]}}
""",
    "train.optimizer: sgd": "train: {optimizer: {name: sgd, lr: 0.1, nesterov: true, weight_decay: 5e-4}}\n",
    "train.optimizer: adam": "train: {optimizer: {name: adam, lr: {log: [1e-4, 1e-2]}}}\n",
    "train.optimizer: adamw": "train: {optimizer: {name: adamw, lr: 0.001, beta2: 0.99}}\n",
    "train.optimizer: nadam": "train: {optimizer: {name: nadam, lr: 0.002}}\n",
    "train.optimizer: radam": "train: {optimizer: {name: radam, lr: 0.001}}\n",
    "train.optimizer: rmsprop": "train: {optimizer: {name: rmsprop, lr: 0.001, momentum: 0.9}}\n",
    "train.optimizer: adagrad": "train: {optimizer: {name: adagrad, lr: 0.01}}\n",
    "train.optimizer: muon": "train: {optimizer: {name: muon, lr: {log: [0.005, 0.05]}, adamw_lr: 1e-3}}\n",
    "train.schedule": "train: {schedule: {name: {choice: [cosine, polynomial]}, warmup: {uniform: [0, 0.2]}}}\n",
    "train.schedule: constant": "train: {schedule: {name: constant, warmup: 0.05}}\n",
    "train.schedule: step": "train: {schedule: {name: step, every: 0.3, gamma: 0.1}}\n",
    "train.schedule: multi_step": "train: {schedule: {name: multi_step, at: [0.5, 0.75], gamma: 0.1}}\n",
    "train.schedule: exponential": "train: {schedule: {name: exponential, final: 0.01}}\n",
    "train.schedule: cyclic": "train: {schedule: {name: cyclic, cycles: 3, low: 0.1, halve: true}}\n",
    "train.schedule: cosine": "train: {schedule: {name: cosine, warmup: 0.1, final: 0.01}}\n",
    "train.schedule: cosine_restarts": "train: {schedule: {name: cosine_restarts, first: 0.25, multiply: 1}}\n",
    "train.schedule: polynomial": "train: {schedule: {name: polynomial, power: {uniform: [0.5, 2]}}}\n",
    "train.schedule: one_cycle": "train: {schedule: {name: one_cycle, warmup: {uniform: [0.1, 0.5]}}}\n",
    "train.schedule: sequence": """\
train:
  schedule:
    name: sequence
    parts:
      - {share: 0.3, schedule: {name: constant, warmup: 0.2}}
      - {share: 0.7, schedule: {name: cosine}}
""",
    "train.schedule.parts": """\
train:
  schedule:
    name: sequence
    parts: [{share: 1, schedule: {name: cosine}}, {share: 1, schedule: {name: cosine}, top: 0.3}]
""",
    "train.lr_finder": "train: {optimizer: {name: sgd, lr: 0.1}, lr_finder: {start: 1e-5, end: 1}}\n",
    "train.ema": "train: {ema: {choice: [null, {decay: {uniform: [0.98, 0.9999]}}]}}\n",
    "train.swa": "train: {epochs: 20, swa: {start: 0.75, lr: {log: [0.01, 0.2]}}}\n",
    "train.early_stop": "train: {epochs: 100, early_stop: {patience_epochs: 8, metric: validation.loss}}\n",
    "search": """\
search:
  sampler: tpe
  trials: 50
  metric: validation.balanced_accuracy
  start_with: [{train.optimizer.lr: 0.003}]
train: {optimizer: {name: adamw, lr: {log: [1e-4, 1e-2]}}}
""",
    "search.pruner": "search: {pruner: {name: hyperband, min_epochs: 2}}\n",
    "search.pruner: none": "search: {pruner: {name: none}}\n",
    "search.pruner: median": "search: {pruner: {name: median, startup_trials: 8}}\n",
    "search.pruner: asha": "search: {pruner: {name: asha, min_epochs: 2, reduction: 4}}\n",
    "search.pruner: hyperband": "search: {pruner: {name: hyperband, min_epochs: 2}}\n",
    "search.pruner: patient": "search: {pruner: {name: patient, patience_epochs: 4}}\n",
    "workers": "workers: {concurrent: 4, cpus: 2, gpus: 0.5}\n",
    "average": "average: {best_n: {choice: [0, 3, 5]}, trunk_epochs: 2, batch_norm_samples: 4096}\n",
    "finish": "finish: {epochs: 60, pool: 4, finalists: 3, seeds: 3}\n",
    "finish.distil": "finish: {epochs: 30, moves: [distil], distil: {temperature: 3, compare: true}}\n",
    "storage": "storage: {limit: 50 GB, keep_best: 20, extendable: 3}\n",
}
