# The server of Skep, with every engine: docs/deploy/containers.md.
FROM python:3.11-slim AS build
WORKDIR /build
COPY requirements.txt .
RUN python3 -m venv /opt/skep \
 && /opt/skep/bin/pip install --no-cache-dir --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY botapi botapi
COPY bot_client bot_client
COPY proto proto
RUN /opt/skep/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/skep --create-home skep
COPY --from=build /opt/skep /opt/skep
ENV PATH=/opt/skep/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    SKEP_DATA_DIR=/var/lib/skep \
    SKEP_HOST=0.0.0.0 \
    SKEP_PORT=8080 \
    SKEP_LOG_FORMAT=json
USER 10001
VOLUME /var/lib/skep
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
ENTRYPOINT ["skep"]
CMD ["serve"]
