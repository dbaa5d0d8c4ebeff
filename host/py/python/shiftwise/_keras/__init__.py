"""The bridge to Keras; imported only where a model of Keras is at hand."""
