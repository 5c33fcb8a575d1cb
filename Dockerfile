# vadis on Debian, with PyTorch for processors alone. Models, and machine code compiled at first use, stay in /cache:
#     docker build --tag vadis .
#     docker run --rm --volume vadis-cache:/cache --volume "$PWD:/videos" vadis classify holiday.mp4
# .ci/fresh-machine runs the same steps in a clean Debian, without Docker.
FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -qq --no-install-recommends ca-certificates python3-venv && rm -rf /var/lib/apt/lists/*
ARG UV_TORCH_BACKEND=cpu
COPY . /source
RUN python3 -m venv /opt/vadis && /opt/vadis/bin/pip install --quiet --no-cache-dir uv
RUN /opt/vadis/bin/uv pip install --quiet --no-cache --python /opt/vadis/bin/python /source && /opt/vadis/bin/pip uninstall --quiet --yes uv
RUN useradd --uid 1000 vadis && install --directory --owner vadis /cache /videos
ENV PATH=/opt/vadis/bin:/usr/bin:/bin VADIS_CACHE=/cache
VOLUME /cache
WORKDIR /videos
USER vadis
ENTRYPOINT ["vadis"]
CMD ["--help"]
