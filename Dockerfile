# The image of one revision: the locked packages, then the sources, run as a user who is not root.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag mulligan .
#   launch/docker.sh train name=first
#
# BASE             give it by digest (python@sha256:...) to have the same bytes in a year.
# TORCH_INDEX_URL  where torch alone comes from, for a CPU build or another CUDA, whose libraries the lock then has to
#                  name; empty: where pip takes the rest from.
# EXTRAS           of pyproject.toml, which training does without: slurm submits sweeps, dev runs the tests as well.
# COMPILER         1, the default, has g++: torch.compile needs it, and so do the kernels of Triton, on a GPU the loss
#                  head's and the document mask's too. 0 leaves it out: a smaller image, in which compile=auto trains eager.
#                  Its version is the distribution's of the day, which no digest holds; image.json names it.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# For the build alone; the image has no such setting.
ARG PIP_DISABLE_PIP_VERSION_CHECK=1
ARG PIP_NO_CACHE_DIR=1
ARG PIP_ROOT_USER_ACTION=ignore

# This layer, by far the largest, knows no sources: an empty package asks for what the real one does. The build backends
# come first, so that pip fetches none of its own, now or later. What the lock does not hold fails the build. The tests
# of the libraries go, as the base has left out those of Python; torch stays whole.
COPY requirements.lock pyproject.toml /opt/mulligan/
ARG TORCH_INDEX_URL=
ARG EXTRAS=
RUN mkdir --parents /tmp/empty/conf /tmp/empty/src/mulligan \
    && cd /tmp/empty \
    && touch README.md src/mulligan/__init__.py \
    && cp /opt/mulligan/pyproject.toml . \
    && export PIP_CONSTRAINT=/opt/mulligan/requirements.lock \
    && if [ -n "$TORCH_INDEX_URL" ]; then pip install --no-deps --index-url "$TORCH_INDEX_URL" torch; fi \
    && pip install hatchling setuptools \
    && pip install --no-build-isolation ".${EXTRAS:+[$EXTRAS]}" \
    && pip check \
    && pip freeze --all --exclude pip --exclude wheel --exclude mulligan > installed \
    && if sed 's/+.*//' installed | grep -vixFf "$PIP_CONSTRAINT"; then echo "not in requirements.lock"; exit 1; fi \
    && find /usr/local/lib/python3*/site-packages -name torch -prune -o -name tests -type d -prune -exec rm -r {} + \
    && rm -r /tmp/empty

ARG COMPILER=1
RUN if [ "$COMPILER" = 1 ]; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends g++ \
        && rm -rf /var/lib/apt/lists/*; \
    fi

# Writable by everyone, since `docker run --user` may name anybody. Mount runs and prepared to keep what is made there.
RUN useradd --uid 1000 --create-home mulligan \
    && mkdir --parents /work/runs /work/prepared \
    && chmod 1777 /home/mulligan /work /work/runs /work/prepared

# A user without a name has no home either, and torch asks for both when it compiles.
ENV HOME=/home/mulligan \
    USER=mulligan \
    PYTHONUNBUFFERED=1

# The wheel takes conf/ with it.
COPY pyproject.toml README.md /opt/mulligan/source/
COPY conf /opt/mulligan/source/conf
COPY src /opt/mulligan/source/src
RUN pip install --no-deps --no-build-isolation /opt/mulligan/source \
    && pip check

# Last, or every commit would build all layers again. A run notes this stamp in its provenance.jsonl.
ARG BASE
ARG REVISION=unknown
RUN printf '{"base": "%s", "compiler": "%s", "lock_sha256": "%s", "revision": "%s"}\n' \
        "$BASE" "$(if command -v g++ > /dev/null; then g++ --version | head --lines=1; fi)" \
        "$(sha256sum < /opt/mulligan/requirements.lock | cut -c -64)" "$REVISION" > /opt/mulligan/image.json
ENV MULLIGAN_IMAGE=/opt/mulligan/image.json

USER mulligan
WORKDIR /work
ENTRYPOINT ["mulligan"]
CMD ["--help"]
