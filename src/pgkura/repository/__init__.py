"""The only durable thing: sealed objects, signed index, manifests and journal. See docs/formats/repository.md."""
