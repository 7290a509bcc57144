"""A calculated, not measured, estimate of how training scales over many accelerators.

`python -m app.bench.estimate` prints it as a table. A ring all-reduce sends 2 (n - 1) / n times the gradients
over each link in 2 (n - 1) hops (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for
clusters of workstations", section 4). Nothing of it overlaps with computing here. In fact it does in part, so
the figures are lower bounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

BYTES_PER_GRADIENT = 4  # float32, as variables and their gradients are in every precision
OPERATIONS_PER_MAC = 6  # a multiply and an add, forward and twice as much backward
SUSTAINED = 100e12  # operations/s of one accelerator: an assumption, a tenth of a large one's data sheet
HOP_SECONDS = 10e-6  # latency of a message: an assumption


@dataclass(frozen=True)
class Network:
    """What is trained: trainable parameters, multiply-accumulates of an image, images for one accelerator."""

    name: str
    parameters: int
    macs: int
    batch: int

    def step_seconds(self, batch: float) -> float:
        """Return the computing time of a step on so many images."""
        return OPERATIONS_PER_MAC * self.macs * batch / SUSTAINED


@dataclass(frozen=True)
class Link:
    """A connection between accelerators, bytes/s in each direction by its name."""

    name: str
    bytes_per_second: float


LINKS = (
    Link("10 Gbit/s Ethernet", 1.25e9),
    Link("100 Gbit/s Ethernet or InfiniBand", 12.5e9),
    Link("PCI Express 4.0 x16, 32 GB/s", 32e9),
    Link("NVLink 4, 450 GB/s", 450e9),
)


def exchange_seconds(network: Network, link: Link, accelerators: int) -> float:
    """Return the time of a ring all-reduce of all gradients."""
    n, size = accelerators, BYTES_PER_GRADIENT * network.parameters
    return 2 * (n - 1) * (size / n / link.bytes_per_second + HOP_SECONDS)


def efficiency(network: Network, link: Link, accelerators: int, *, batch: float) -> float:
    """Return the share of a step that is computing, each accelerator with `batch` images."""
    step = network.step_seconds(batch)
    return step / (step + exchange_seconds(network, link, accelerators))


def stops_paying(network: Network, link: Link) -> int:
    """Return how many accelerators are worth it for a batch that is shared among them.

    The batch is that of eight; each doubling must make the step at least one and a half times as fast.
    """
    whole, count = 8 * network.batch, 1

    def seconds(accelerators: int) -> float:
        return network.step_seconds(whole / accelerators) + exchange_seconds(network, link, accelerators)

    while 2 * count <= whole and seconds(count) >= 1.5 * seconds(2 * count):
        count *= 2
    return count


def table(networks: Sequence[Network]) -> str:
    """Return the estimate as a table in Markdown."""
    lines = [
        "| network | link | 8, exchange | 8 | 64 | 64, batch of 8 shared | pays up to |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for network in networks:
        for link in LINKS:
            shares = [
                f"{efficiency(network, link, count, batch=batch):.0%}"
                for count, batch in ((8, network.batch), (64, network.batch), (64, network.batch / 8))
            ]
            exchange = f"{1e3 * exchange_seconds(network, link, 8):.3g} ms"
            cells = [network.name, link.name, exchange, *shares, str(stops_paying(network, link))]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the estimate for two networks, their sizes counted as `make models` does."""
    from app.training import startup  # first: it keeps TensorFlow quiet while it comes up

    startup.configure(seed=0, precision="float32", devices="cpu")
    from models import build_model
    from models.inspect import count_macs, count_weights

    networks = []
    for name, title, pixels, classes in (("resnet18", "ResNet18", 32, 10), ("resnet50", "ResNet-50", 224, 4)):
        network = build_model(name, (pixels, pixels, 3), classes)
        trained = count_weights(network.trainable_weights)
        networks.append(Network(title, trained, count_macs(network), 128))
    for each in networks:
        print(
            f"{each.name}: {each.parameters:,} trainable parameters, "
            f"{BYTES_PER_GRADIENT * each.parameters / 1e6:.1f} MB of gradients; a step on {each.batch} "
            f"images {1e3 * each.step_seconds(each.batch):.3g} ms"
        )
    print(table(networks))


if __name__ == "__main__":
    main()
