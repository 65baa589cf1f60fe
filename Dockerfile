# Build:  docker build -t probed .
# Run:    docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#           -v ./probed.yml:/etc/probed/probed.yml:ro -v probed:/var/lib/probed probed
# The page listens on the container's loopback; to publish a port, give it users and TLS first (web.config_file, docs/access.md),
# then `--web.listen-address 0.0.0.0:7432`.

FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements/build.lock requirements/runtime.lock requirements/
# Every file that is installed has its hash in a lock; wheels only, so nothing foreign runs while the image is built.
RUN python -m venv --without-pip /opt/probed \
    && python -m pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/build.lock \
    && python -m pip --python /opt/probed install --no-cache-dir --require-hashes --only-binary :all: \
        -r requirements/runtime.lock
COPY pyproject.toml README.md LICENSE ./
COPY policies policies
COPY probed probed
RUN python -m pip wheel --no-cache-dir --no-deps --no-index --no-build-isolation --wheel-dir /dist . \
    && python -m pip --python /opt/probed install --no-cache-dir --no-deps --no-index /dist/*.whl

FROM python:3.13-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="probed" \
      org.opencontainers.image.description="Health probes and event detection for PostgreSQL high-availability stacks" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# A named account, because PostgreSQL clients ask who one is; numeric below, so that Kubernetes can see it is not root.
# No pip in the image: nothing can be added to it from inside.
RUN groupadd --gid 65532 probed \
    && useradd --no-log-init --uid 65532 --gid 65532 --home-dir /var/lib/probed --no-create-home \
        --shell /usr/sbin/nologin probed \
    && install --directory --owner 65532 --group 65532 --mode 0700 /var/lib/probed \
    && install --directory --mode 0755 /etc/probed \
    && python -m pip uninstall --yes pip \
    && rm -r /usr/local/lib/python3.*/ensurepip
COPY --from=build /opt/probed /opt/probed
ENV PATH=/opt/probed/bin:$PATH \
    HOME=/var/lib/probed \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /var/lib/probed
USER 65532:65532
VOLUME ["/var/lib/probed"]
EXPOSE 7432
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s --retries=3 CMD ["probed", "healthcheck"]
ENTRYPOINT ["probed"]
CMD ["run", "--config.file", "/etc/probed/probed.yml", "--web.listen-address", "127.0.0.1:7432"]
