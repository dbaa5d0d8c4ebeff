mod blob;
mod order;
mod schedule;
mod vendor;
mod xmodel;
