# smoothcert on a CPU, for a user without privileges: docker build -t smoothcert . && docker run --rm smoothcert demo -o /tmp/demo
FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/smoothcert
ENV PATH=/opt/smoothcert/bin:$PATH
# The CPU build of torch first: the one that PyPI gives brings gigabytes of CUDA.
COPY constraints.txt ./
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu -c constraints.txt torch
COPY pyproject.toml README.md LICENSE CHANGELOG.md CITATION.cff ./
COPY src ./src
RUN pip install --no-cache-dir -c constraints.txt .

FROM python:3.12-slim
LABEL org.opencontainers.image.title="smoothcert" \
      org.opencontainers.image.description="Certified adversarial robustness by randomized smoothing" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/smoothcert /opt/smoothcert
ENV PATH=/opt/smoothcert/bin:$PATH
RUN useradd --create-home --uid 1000 smoothcert
USER 1000
WORKDIR /work
ENTRYPOINT ["smoothcert"]
CMD ["--help"]
