FROM python:3.11-slim-bookworm

WORKDIR /opt/pixelscope
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src
RUN python -m pip install --no-cache-dir -c constraints.txt '.[serve,export]' \
    && useradd --create-home --uid 1000 pixelscope \
    && install -d -o pixelscope /runs

USER 1000
WORKDIR /home/pixelscope
VOLUME ["/runs"]
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/')"]
ENTRYPOINT ["pixelscope", "serve"]
CMD ["/runs", "--host", "0.0.0.0"]
