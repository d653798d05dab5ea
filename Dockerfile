# The image of one revision: the locked packages, then the sources, run as a user who is not root.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag mulligan .
#   launch/docker.sh train name=first
#
# BASE             give it by digest (python@sha256:...) to have the same bytes in a year.
# TORCH_INDEX_URL  where torch alone comes from, for a CPU build or another CUDA; empty: where pip takes the rest from.
# COMPILER         1 adds g++, which torch.compile needs; without it compile=auto trains eager on a CPU.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# The lock alone: this layer, by far the largest, stays as it is until a version changes.
COPY requirements.lock /opt/mulligan/
ARG TORCH_INDEX_URL=
RUN cd /opt/mulligan \
    && if [ -n "$TORCH_INDEX_URL" ]; then \
        pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
            --index-url "$TORCH_INDEX_URL" "$(grep '^torch==' requirements.lock)"; \
    fi \
    && pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore -r requirements.lock

ARG COMPILER=0
RUN if [ "$COMPILER" = 1 ]; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends g++ \
        && rm -rf /var/lib/apt/lists/*; \
    fi

# The wheel takes conf/ with it. The lock holds the build backend, so that nothing is fetched here.
COPY pyproject.toml README.md /opt/mulligan/source/
COPY conf /opt/mulligan/source/conf
COPY src /opt/mulligan/source/src
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
        --no-deps --no-build-isolation /opt/mulligan/source \
    && pip check

# Writable by everyone, since `docker run --user` may name anybody. Mount runs and prepared to keep what is made there.
RUN useradd --uid 1000 --create-home mulligan \
    && mkdir --parents /work/runs /work/prepared \
    && chmod 1777 /home/mulligan /work /work/runs /work/prepared

# A user without a name has no home either, and torch asks for both when it compiles.
ENV HOME=/home/mulligan \
    USER=mulligan \
    PYTHONUNBUFFERED=1

# Last, or every commit would build all layers again. A run notes this stamp in its provenance.jsonl.
ARG BASE
ARG REVISION=unknown
RUN printf '{"base": "%s", "lock_sha256": "%s", "revision": "%s"}\n' \
        "$BASE" "$(sha256sum < /opt/mulligan/requirements.lock | cut -c -64)" "$REVISION" > /opt/mulligan/image.json
ENV MULLIGAN_IMAGE=/opt/mulligan/image.json

USER mulligan
WORKDIR /work
ENTRYPOINT ["mulligan"]
CMD ["--help"]
