"""How long a step takes on many devices, and what of it is waiting for messages that nothing hides.

A ring sends (n-1)/n of the whole for a gather or a scattered sum, and twice that for a sum that all get (Patarasuk and
Yuan 2009); of a sum for all, a pair of trees sends as much in fewer hops (Sanders et al. 2009). What overlaps what
follows PyTorch's DDP (Li et al. 2020) and FSDP2. The optimizer's work counts as part of the device's own.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from mulligan.model.config import ModelConfig
from mulligan.planning.memory import Layout
from mulligan.planning.messages import Message, messages_of

BUCKET_BYTES = 25 * 2**20  # that DDP sends at once
HOP_SECONDS, NETWORK_HOP_SECONDS = 3.4e-6, 14e-6  # NVLink's and a network's: NCCL's own (tuning.cc, Simple protocol)
REACHED_SHARE = 0.8  # of the data sheets' bandwidth, about what nccl-tests shows on hosts of eight A100 or H100
FORWARD_SHARE = 1.0 / 3.0  # of a step's computing


@dataclass(frozen=True, kw_only=True)
class Network:
    """Bytes a second that a device sends, one way: to those of its host, and its share of the host's network."""

    devices_per_host: int
    link_bandwidth: float
    network_bandwidth: float

    def seconds(self, message: Message, size: int, spread: int = 1) -> float:
        """Of one collective over ``size`` ranks, of which ``spread`` - 1 others stand between two neighbours."""
        if size == 1:
            return 0.0
        per_host = max(1, min(size, self.devices_per_host // spread))
        hosts = -(-size // per_host)
        bandwidth = self.link_bandwidth
        if hosts > 1:  # as many rings as devices, each leaves the host by another's card
            bandwidth = min(bandwidth if per_host > 1 else math.inf, per_host * self.network_bandwidth)
        sent = (size - 1) / size * message.num_bytes / (REACHED_SHARE * bandwidth)
        ring = (size - hosts) * HOP_SECONDS + (hosts - 1) * NETWORK_HOP_SECONDS
        if message.operation != "all-reduce":
            return message.times * (sent + ring)
        tree = (per_host - 1) * HOP_SECONDS + math.log2(hosts) * NETWORK_HOP_SECONDS
        return message.times * 2.0 * (sent + min(ring, tree))


class Step(NamedTuple):
    """Seconds of one step: ``ideal``, were the work divided without loss; what a rank computes, a part of it what
    others of its group compute as well; and ``exposed``, when it only waits.
    """

    ideal: float
    computing: float
    exposed: float

    @property
    def seconds(self) -> float:
        return self.computing + self.exposed

    @property
    def efficiency(self) -> float:
        return self.ideal / self.seconds


def step_of(model: ModelConfig, layout: Layout, network: Network, *, accumulation: int, flops: float) -> Step:
    """A step of ``accumulation`` micro-batches a rank, on devices that do ``flops`` of the model's a second."""
    tensor, data = layout.tensor_parallel_size, layout.data_parallel_size
    messages = messages_of(model, layout)
    tokens = layout.micro_batch * layout.sequence_length
    head = 6 * model.vocab_size * model.width * tokens / flops
    whole = model.flops_per_token(layout.sequence_length) * tokens / flops
    block = (whole - head) / model.num_layers / tensor
    computing = head + model.num_layers * block  # of a micro-batch: each rank of a group has the whole head

    def over_data(message: Message | None) -> float:
        return 0.0 if message is None else network.seconds(message, data, spread=tensor)

    shared, shared_back = (
        sum(network.seconds(one, tensor) for one in kind)
        for kind in (messages.block_shared, messages.block_shared_backward)
    )
    exposed = accumulation * model.num_layers * (shared + shared_back)
    if layout.sharded:
        gather, reduce = over_data(messages.block_gather), over_data(messages.block_reduce)
        forward, backward = FORWARD_SHARE * block + shared, (1.0 - FORWARD_SHARE) * block + shared_back
        # A block's weights come while the one before computes; its gradients leave while the next does.
        hidden_less = max(0.0, gather - forward) + max(0.0, gather + reduce - backward)
        ends = over_data(messages.outside_gather) + gather + reduce + over_data(messages.outside_reduce)
        exposed += accumulation * (ends + (model.num_layers - 1) * hidden_less)
        exposed += sum(network.seconds(one, data * tensor) for one in messages.last)
    elif data > 1:
        exposed += _buckets_left(model, layout, network, block=block, head=head)
    return Step(accumulation * whole / tensor, accumulation * computing, exposed)


def _buckets_left(model: ModelConfig, layout: Layout, network: Network, *, block: float, head: float) -> float:
    """Seconds from the end of the last backward pass to that of DDP's last sum. A bucket leaves when it is full, after
    those before it: of a head of its own first, then of the blocks, and all of the embeddings' at the end.
    """
    parts = model.parameters_by_part
    back = 1.0 - FORWARD_SHARE
    pieces = [(back * head, parts["head"] + parts["last norm"])]
    pieces += [(back * block, parts["blocks"] // model.num_layers)] * model.num_layers
    pieces.append((0.0, parts["embeddings"]))
    now = sent = 0.0
    for seconds, entries in pieces:
        num_bytes = entries * layout.kept_bytes
        buckets = max(1, -(-num_bytes // BUCKET_BYTES))
        bucket = network.seconds(Message("all-reduce", num_bytes // buckets), layout.data_parallel_size)
        for _ in range(buckets):
            now += seconds / buckets
            sent = max(now, sent) + bucket
    return sent - now
