"""The networks, one file a paper. Importing this package registers them all."""

import importlib
import pkgutil

# The order of tables: the ten networks of the sources, the quickest to 90 % on a CPU, the families of the
# papers. Networks in files that are not named here follow.
_ORDER = (
    "baseline", "lenet", "alexnet", "vgg16", "inception", "resnet18", "shallow_res", "minimodel", "resnet50",
    "resnet18_d2l", "fast_cifar", "resnet", "vgg", "cifar_resnet",
)  # fmt: skip
for _module in (*_ORDER, *(module.name for module in pkgutil.iter_modules(__path__))):
    importlib.import_module(f"{__name__}.{_module}")
