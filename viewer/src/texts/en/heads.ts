export const heads = {
  heading: "All heads of this text",
  head: "Head",
  roles: "Roles",
  map: (head: string) => `Weights of head ${head}`,
  query: "from",
  key: "to",
};
