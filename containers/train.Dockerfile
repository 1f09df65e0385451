FROM python:3.11-slim-bookworm

# constraints.txt pins every package; layers of packages stay while only the source changes.
WORKDIR /opt/pixelscope
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src
RUN python -m pip install --no-cache-dir -c constraints.txt '.[train,export,ablate,dicom,tensorboard]' \
    && useradd --create-home --uid 1000 pixelscope \
    && install -d -o pixelscope /runs /data

USER 1000
WORKDIR /home/pixelscope
VOLUME ["/runs", "/data"]
ENTRYPOINT ["pixelscope"]
CMD ["--help"]
