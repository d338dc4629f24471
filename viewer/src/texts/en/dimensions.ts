export const dimensions = {
  heading: "How d_model is cut into heads",
  heads: "num_heads",
  dModel: "d_model",
};
