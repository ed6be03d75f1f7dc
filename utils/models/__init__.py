"""BAS models: the shared pipeline (generator, activation map constraint) and the four backbones."""
