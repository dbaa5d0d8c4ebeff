mod blob;
mod schedule;
mod vendor;
mod xmodel;
