package io.antispoof.core;

/** What an installation remembers of the models that it has accepted, so that none is replaced by an older one. */
public interface AcceptedModels {
    /** Returns the highest version accepted of a model of this name; -1 where none was. */
    long version(String model);

    /** Remembers it. */
    void accept(String model, long version);
}
